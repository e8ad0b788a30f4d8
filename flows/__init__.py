"""What happens, in order: the nightly story and its command line. Imports tasks, storage, deployments."""
