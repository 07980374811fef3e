"""Side by side with other implementations of EVA. evamm itself never imports this."""
