"""The image, and what runs it: Compose, Kubernetes, Container Apps."""
