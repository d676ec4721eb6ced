"""The loop that draws: steps, one utterance, sentences with retries, one recording, a session."""
