"""Networks in torch: quantise, train, export and measure one configuration."""
