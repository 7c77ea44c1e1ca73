"""`make demo`: one recording through the backend, as the gateway would send it and show it. A client: no torch here."""
