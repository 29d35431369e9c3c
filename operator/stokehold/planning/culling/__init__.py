"""What happens to workspaces beside their placement: started, judged for idleness, warned, stopped. Pure."""
