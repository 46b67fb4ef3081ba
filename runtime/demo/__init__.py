"""The demo: its tickets and what ``make demo`` runs."""
