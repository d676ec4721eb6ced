"""Drawing that generators of several systems share: noise, materials, objects, light, photographs."""
