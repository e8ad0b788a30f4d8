"""Where releases run: inventory, SSH and the program on the device. Imports nothing of ours but storage.errors and storage.files."""
