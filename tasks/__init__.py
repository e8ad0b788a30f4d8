"""How each stage works, one file or folder a stage. Imports storage and deployments, never flows."""
