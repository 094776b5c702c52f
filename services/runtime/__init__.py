"""What every modality shares: lifecycle, HTTP, validation, errors, metrics and the prediction log."""
