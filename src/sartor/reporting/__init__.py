"""A run becomes one HTML page: charts and recommendations."""
