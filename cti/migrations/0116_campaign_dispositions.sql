-- What calls of a campaign may have ended with, as its settings say it, and which of that counts as a success: what was named
-- so (campaign_conversions), and every disposition of the category conversion.

CREATE VIEW campaign_dispositions AS
SELECT c.id AS campaign_id, d ->> 'code' AS code, d ->> 'label' AS label, d ->> 'category' AS category
  FROM campaigns c,
       jsonb_array_elements(CASE WHEN jsonb_typeof(c.settings -> 'dispositions') = 'array'
                                 THEN c.settings -> 'dispositions' ELSE '[]' END) AS d;

CREATE VIEW campaign_successes AS
SELECT campaign_id, disposition FROM campaign_conversions
UNION
SELECT campaign_id, code FROM campaign_dispositions WHERE category = 'conversion';
