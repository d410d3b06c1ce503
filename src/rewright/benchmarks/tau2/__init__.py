"""tau2: customer service in airline, retail and telecom, with official environments, tools and rewards."""
