"""Training and evaluation. The server imports none of it: it only applies what was fitted here."""
