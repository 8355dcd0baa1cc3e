"""The model over HTTP as OpenAI's API: requests share batches."""
