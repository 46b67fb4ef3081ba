"""Training and evaluation. The server never imports this: it fits what `sprat.calibration` applies."""
