"""Steps as plain functions: paths and plain values in, files out; no KFP, no environment, no globals."""
