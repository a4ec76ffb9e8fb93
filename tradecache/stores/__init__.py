"""The two tiers: `local`, which outlives the process, and `hot`, in memory."""
