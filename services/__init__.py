"""Model servers: one folder per modality; they load any bundle and share ``runtime``."""
