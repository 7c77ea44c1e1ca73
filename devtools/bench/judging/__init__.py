"""What the figures come to: goals, the closing verdict, and the time that a run will take."""
