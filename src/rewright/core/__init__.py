"""What every other room builds on: records, errors, storage, the registry. Imports nothing of ours."""
