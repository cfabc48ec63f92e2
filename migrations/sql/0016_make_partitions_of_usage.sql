-- The months of the samples too; otherwise as in 0011.
CREATE OR REPLACE FUNCTION berth.make_partitions(first_month date, last_month date) RETURNS SETOF text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parent text;
    month  date;
    part   text;
BEGIN
    -- One maker at a time; let go at the end of the transaction, also behind a pooler. The number is arbitrary.
    PERFORM pg_advisory_xact_lock(7305001);
    FOREACH parent IN ARRAY ARRAY['container_status_history', 'operation_logs', 'container_resource_usage'] LOOP
        FOR month IN
            SELECT m::date
            FROM generate_series(date_trunc('month', first_month::timestamp), last_month::timestamp, interval '1 month') m
        LOOP
            part := parent || to_char(month, '"_"YYYY"_"MM');
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_inherits
                WHERE inhparent = format('berth.%I', parent)::regclass
                  AND inhrelid = to_regclass(format('berth.%I', part)));
            EXECUTE format('CREATE TABLE berth.%I (LIKE berth.%I INCLUDING ALL)', part, parent);
            EXECUTE format('ALTER TABLE berth.%I ATTACH PARTITION berth.%I FOR VALUES FROM (%L) TO (%L)', parent, part,
                           month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
            RETURN NEXT part;
        END LOOP;
    END LOOP;
END
$$;
