"""What all systems share: errors, devices, checkpoints, predictors, the batch runner and the training bases."""
