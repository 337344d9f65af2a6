"""The clean subject evaluated again and again under seeds that no contract names."""
