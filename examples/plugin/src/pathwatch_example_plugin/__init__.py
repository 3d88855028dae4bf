"""An example plug-in for pathwatch."""
