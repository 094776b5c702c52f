"""What a run reads and writes beside its data: events, documents, records, the cache of its steps, and errors."""
