"""Reading, checking and batching of structures."""
