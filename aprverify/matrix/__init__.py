"""Every planted defect under every falsifier that can afford it: how the crosses are run."""
