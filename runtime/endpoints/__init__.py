"""Other machines that a tier may ask: what guards them, and how each kind is asked."""
