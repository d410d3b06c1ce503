"""The stages of a run. Each reads the files of earlier stages from the run directory and can be resumed or redone."""
