"""A folder with everything that the backend needs, which runs wherever it is moved, and an image of it."""
