"""A loaded model answers: engine, batcher, KV cache, sampling, chat session."""
