"""The commands of the study, and the packages behind them."""
