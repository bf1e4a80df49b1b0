"""Published implementations beside ours: same weights, same prompt, same decoder, in turns."""
