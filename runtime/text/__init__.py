"""Work on texts that no model is needed for: JSON, schemas, templates, places, parts."""
