"""Pictures of what the methods do: one file each, with its computing and drawing."""
