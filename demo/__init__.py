"""The demo domain: its pictures, its bank, and the run that shows the whole chain offline."""
