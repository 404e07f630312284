"""SASRec in two published forms, and full ranking."""
