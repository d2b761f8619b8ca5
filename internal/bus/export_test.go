package bus

// HashOf is what the roster keeps of a secret.
func HashOf(secret string) string { return hashOf(secret) }
