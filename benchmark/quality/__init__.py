"""How good the trained networks are, by the report's protocol (section 2.1): whole pictures, against bicubic."""
