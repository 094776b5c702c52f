"""What was predicted and what turned out to be true: the record format, the log's files, labels, and their join."""
