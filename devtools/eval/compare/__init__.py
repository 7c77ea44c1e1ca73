"""Several systems in one report: what they are, how they differ on the same recordings, and what follows from it."""
