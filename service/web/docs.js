// Draws the OpenAPI page from the served schema; no network beyond this server.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
