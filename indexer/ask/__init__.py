"""Asking: the whole answer without HTTP. Used by the CLI, by notebooks and by the service."""
