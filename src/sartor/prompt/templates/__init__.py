"""Named chat templates, one .jinja file each."""
