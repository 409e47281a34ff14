"""Grow trees from a trained BERT, distil, fine-tune, evaluate and export them for Espalier."""
