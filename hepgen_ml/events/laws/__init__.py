"""Laws that complete events obey, such as conservation of momentum and charge."""
