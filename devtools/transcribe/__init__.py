"""`make demo`: one recording through the backend, as the gateway sends it and shows it. A client: no torch here."""
