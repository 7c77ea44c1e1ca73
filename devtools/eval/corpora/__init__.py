"""Lists of recordings in the form that a published corpus has: AISHELL-1's transcript file, Common Voice's TSV."""
