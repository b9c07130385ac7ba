"""COST-EFF (Shen et al., EMNLP 2022)."""
