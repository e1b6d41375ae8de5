"""Raw text to exact token batches: corpus, tokenizer, shards, loader."""
