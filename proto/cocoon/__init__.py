"""Import root of the generated protocol packages."""
