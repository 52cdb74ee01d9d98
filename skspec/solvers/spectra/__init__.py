"""What happens to a spectrum between star and pixel: velocity, broadening, noise, systematics."""
